"""Generated recordings in the forms of TRUMANS: rooms, things to move, bodies that move them, and their files."""
