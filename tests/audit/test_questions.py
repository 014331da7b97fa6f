"""The investigator's questions on an incident: the index answers exactly what reading every line answers."""

from __future__ import annotations

from tests.audit.conftest import Investigated
from tests.machinery.investigation.questions import answered, questions


def test_every_answer_is_exact(incident: Investigated) -> None:
    """Each question about 20,000 records is answered as by reading them all, and no answer is empty."""
    answers = {}
    for question in questions(incident.search, incident.records, incident.now_at):
        answer, expected, _ = answered(question)
        assert expected == answer, question.name
        answers[question.name] = answer

    assert [name for name, answer in answers.items() if not answer] == []
