"""The DAG, one short file a flow."""
