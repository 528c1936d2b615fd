"""Consent and the safety checker.

`acknowledgement`: the text that is acknowledged once. `marks`: models that the registry marks as made for adult
pictures. `screening`: what the settings ask for, for a request. `checker`: the network that looks at pictures.
"""
