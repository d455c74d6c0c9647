"""What runs inside Blender's own Python: nothing here imports the rest of the project."""
