"""Examine a deployment: is everything that a server needs present, sound and private?"""

from pdp.doctor.examination import examine
from pdp.doctor.finding import Deployment, Finding, Level

__all__ = ["Deployment", "Finding", "Level", "examine"]
