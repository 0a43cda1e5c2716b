"""What tests share: waiting, services in threads, processes, peers, calculators."""
