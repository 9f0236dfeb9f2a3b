"""GPUs through NVML: the energy counter, or the best power estimate that a board offers.

See `meter.NvmlMeter` (the meter), `survey.survey` (for `doctor`) and `binding.real_driver`.
"""
