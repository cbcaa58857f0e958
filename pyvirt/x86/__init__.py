"""x86 itself: privilege, instructions, guest programs and the monitors that run them."""
