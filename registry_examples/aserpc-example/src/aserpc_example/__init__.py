"""An example: a calculator that aserpc finds by itself."""
