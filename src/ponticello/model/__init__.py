"""The towers, the front ends under them, and the weights that come with the package."""
