"""Records and images on their way into a net: databases, readers, transformations, prefetching. Knows no layer."""
