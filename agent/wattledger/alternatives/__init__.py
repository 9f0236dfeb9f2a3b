"""Another time, another grid, another mix: `wattledger when` and `report --what-if`."""
