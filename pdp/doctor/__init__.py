"""Examine a deployment: is everything there that a server needs, sound, and for nobody else's eyes?"""

from pdp.doctor.examination import examine
from pdp.doctor.finding import Deployment, Finding, Level

__all__ = ["Deployment", "Finding", "Level", "examine"]
