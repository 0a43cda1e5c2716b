"""Keys, and what each allows: only between machines; who is on the broker's comes by a folder."""
