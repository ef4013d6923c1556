"""Rendered heads with exact labels: make_synth.py is the command, maker.py the path from a seed to a picture."""
