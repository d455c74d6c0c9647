"""What a clip is: schema, store, splits and lineage. Opens no media."""
