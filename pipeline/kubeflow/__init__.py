"""The container of a Kubeflow node."""
