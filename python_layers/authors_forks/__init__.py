"""The layer types that the DHN authors' forks add to Caffe, as a plug-in of the embedded engine (and of it alone)."""
