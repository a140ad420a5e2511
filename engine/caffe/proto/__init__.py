"""Caffe's protocol buffer messages: `caffe_pb2` (the messages), `text` (reading prototxt)."""
