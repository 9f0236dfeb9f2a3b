"""The benchmark: `make bench`. It measures, it is no test; see README.md beside this file."""
