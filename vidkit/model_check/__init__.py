"""`vidkit check MODEL`: a short clip at two settings, and whether all is well with it. The parent loads no torch."""
