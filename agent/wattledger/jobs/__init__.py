"""For whom: who held and used the devices."""
