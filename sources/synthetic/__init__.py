"""Generated rooms, textures and hand motion for data without licences."""
