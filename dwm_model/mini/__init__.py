"""The small base model that ships with the project: how its autoencoder, text encoder and transformer are made."""
