"""x86 itself: privilege, instructions, guest programs and the monitors that run them."""

from pyvirt.x86.calibrate import Calibration, Measured, calibrate

__all__ = ["Calibration", "Measured", "calibrate"]
