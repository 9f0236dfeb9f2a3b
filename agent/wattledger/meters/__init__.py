"""How much: the meters, each a `ports.Meter`."""
