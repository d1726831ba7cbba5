"""What is wrong with this machine or a library, and what to do about it."""
