"""The vocabulary: immutable records that flow from the meters to the exporters.

    Reading → EnergyInterval → AttributedInterval → Booking → (ledger) → Totals → Snapshot

Nothing here reads a clock, a file or a device. Energy is µJ, power µW, CO2e µg, water µL,
time ns, ratios millionths: see `wattledger.units`.
"""

from wattledger.model.amounts import Amounts
from wattledger.model.books import (
    Batch,
    Books,
    DeviceRecord,
    EntryKey,
    LedgerStatus,
    Total,
    TotalKey,
    TotalsRow,
)
from wattledger.model.measuring import (
    CounterReading,
    DeviceInfo,
    EnergyInterval,
    Fault,
    Instant,
    Kind,
    MeterReport,
    MeterStatus,
    PowerReading,
    Quality,
    Reading,
)
from wattledger.model.paying import (
    IDLE,
    SYSTEM,
    UNATTRIBUTED,
    AttributedInterval,
    Payee,
    PayeeKind,
    Usage,
)
from wattledger.model.pricing import (
    Basis,
    FallbackLevel,
    GridChoice,
    GridSignal,
    Price,
    SiteFactors,
    SourceStatus,
)
from wattledger.model.showing import (
    Snapshot,
)

__all__ = [
    "IDLE",
    "SYSTEM",
    "UNATTRIBUTED",
    "Amounts",
    "AttributedInterval",
    "Basis",
    "Batch",
    "Books",
    "CounterReading",
    "DeviceInfo",
    "DeviceRecord",
    "EnergyInterval",
    "EntryKey",
    "FallbackLevel",
    "Fault",
    "GridChoice",
    "GridSignal",
    "Instant",
    "Kind",
    "LedgerStatus",
    "MeterReport",
    "MeterStatus",
    "Payee",
    "PayeeKind",
    "PowerReading",
    "Price",
    "Quality",
    "Reading",
    "SiteFactors",
    "Snapshot",
    "SourceStatus",
    "Total",
    "TotalKey",
    "TotalsRow",
    "Usage",
]
