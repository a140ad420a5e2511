"""Caffe's layer types, one module a family. Importing this package registers them all.

The name `caffe.layers` is pycaffe's: NetSpec's factory of layers.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
