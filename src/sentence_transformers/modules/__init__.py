"""The parts that models are made of, one small file each."""
