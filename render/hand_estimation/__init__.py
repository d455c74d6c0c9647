"""Hand meshes of a video: one interface, three estimators, one settings class. Start reading at ``estimator.py``."""
