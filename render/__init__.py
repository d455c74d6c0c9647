"""Pixels: cameras, bodies, meshes, hands, video files and the checks that open media."""
