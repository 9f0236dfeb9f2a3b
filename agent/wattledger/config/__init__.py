"""Settings: TOML in, records out, every fault in one message before anything starts."""

from wattledger.config.load import load_config, parse_config
from wattledger.config.settings import Config

__all__ = ["Config", "load_config", "parse_config"]
