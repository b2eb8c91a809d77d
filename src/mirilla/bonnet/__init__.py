"""The compiled models of the Vision Bonnet: file format, compiler and interpreter."""
