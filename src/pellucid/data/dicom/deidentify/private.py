"""Private attributes that are known to hold nothing but how an image was made (PS3.15, E.3.10).

Some of those that Table E.3.10-1 lists, numbers all of them: block's name, group, and the last byte of the element.
"""

from __future__ import annotations

SAFE_PRIVATE = frozenset(
    {
        ("Philips PET Private Group", 0x7053, 0x00),  # SUV factor
        ("Philips PET Private Group", 0x7053, 0x09),  # activity concentration factor
        ("Philips Imaging DD 001", 0x2001, 0x03),  # diffusion b-factor
        ("Philips Imaging DD 001", 0x2001, 0x04),  # diffusion direction
        ("Philips MR Imaging DD 001", 0x2005, 0x0D),  # scale intercept
        ("Philips MR Imaging DD 001", 0x2005, 0x0E),  # scale slope
        ("SIEMENS MR HEADER", 0x0019, 0x0A),  # images in mosaic
        ("SIEMENS MR HEADER", 0x0019, 0x0B),  # duration of a slice
        ("SIEMENS MR HEADER", 0x0019, 0x0C),  # b value
        ("SIEMENS MR HEADER", 0x0019, 0x0E),  # direction of the diffusion gradient
        ("SIEMENS MR HEADER", 0x0019, 0x27),  # b matrix
        ("SIEMENS MR HEADER", 0x0019, 0x28),  # bandwidth per pixel in phase direction
        ("GEMS_ACQU_01", 0x0019, 0x23),  # table speed
        ("GEMS_ACQU_01", 0x0019, 0x24),  # mid scan time
        ("GEMS_ACQU_01", 0x0019, 0x27),  # rotation speed
        ("GEMS_PARM_01", 0x0043, 0x27),  # pitch
        ("GEMS_HELIOS_01", 0x0045, 0x01),  # macro rows of the detector
        ("GEMS_HELIOS_01", 0x0045, 0x02),  # width of a macro at the isocentre
        ("ELSCINT1", 0x00E1, 0x21),  # dose-length product
        ("ELSCINT1", 0x01F1, 0x26),  # pitch
        ("ELSCINT1", 0x01F1, 0x27),  # rotation time
    }
)
