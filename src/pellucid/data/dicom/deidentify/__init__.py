"""De-identification to the Basic Application Level Confidentiality Profile and its options (PS3.15, Annex E).

`profile` says what is done to an attribute, `actions` does it, `pseudonyms` gives new names by a secret key, `file`
makes one object and `folder` many, `burned_in` looks for text in pixels, and `check` reads the result back.
"""

from pellucid.data.dicom.deidentify.check import Checked, Problem
from pellucid.data.dicom.deidentify.folder import Job, Outcome, deidentify
from pellucid.data.dicom.deidentify.log import Written
from pellucid.data.dicom.deidentify.profile import Choices
from pellucid.data.dicom.deidentify.pseudonyms import Pseudonyms, load_key

__all__ = ["Checked", "Choices", "Job", "Outcome", "Problem", "Pseudonyms", "Written", "deidentify", "load_key"]
