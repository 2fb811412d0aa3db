"""Every fault is really injected, a few times, and loses, doubles and falsifies nothing."""

import numpy as np
import pytest

from faults import Fault
from faults.registry import FAULTS
from faults.report import page, read
from inject_faults import PAGE, RECORD


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_does_no_harm(fault: Fault, tmp_path) -> None:
    found = fault.inject(tmp_path.resolve(), fault.quick, np.random.default_rng(0))
    assert (found.lost, found.doubled, found.wrong) == (0, 0, 0), found.said
    assert found.injected or found.said.startswith("not injected:")


def test_every_fault_has_a_name_of_its_own() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)


def test_the_record_holds_every_fault_and_at_least_fifty_kills() -> None:
    rows = {row.fault: row for row in read(RECORD)}
    assert set(rows) == {fault.name for fault in FAULTS}
    assert all(row.harmless for row in rows.values())
    assert sum(row.injected for name, row in rows.items() if name.startswith("kill-")) >= 50


def test_the_page_shows_the_record() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(read(RECORD))
