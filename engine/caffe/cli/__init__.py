"""Caffe's command line."""
