"""Tests of the table of slots."""

from antquic_server.supervisor.slots import SlotTable


def test_slots_are_filled_in_order_and_count_generations() -> None:
    """A fresh table gives out slot 0 first; each filling is a new generation."""
    table: SlotTable[str] = SlotTable(2)
    first = table.next_vacant(0.0)
    assert first is not None
    assert first.index == 0
    assert table.fill(first, "a") == 1
    second = table.next_vacant(0.0)
    assert second is not None
    assert table.fill(second, "b") == 1
    assert table.next_vacant(0.0) is None

    table.vacate(0, until_s=0.0)
    again = table.next_vacant(0.0)
    assert again is first
    assert table.fill(first, "c") == 2
    assert [slot.worker for slot in table] == ["c", "b"]
    assert (table[0].restarts, table[1].restarts) == (1, 0)
    assert len(table) == 2


def test_vacant_slot_waits_for_its_time() -> None:
    """A slot in back-off is not offered early, and holds up no other slot."""
    table: SlotTable[str] = SlotTable(3)
    for slot in table:
        table.fill(slot, "x")
    table.vacate(0, until_s=5.0)
    table.vacate(2, until_s=3.0)

    assert table.next_vacant(2.9) is None
    assert table.next_vacant(3.0) is table[2]
    assert table.next_vacant(9.0) is table[2]
    table.fill(table[2], "y")
    assert table.next_vacant(9.0) is table[0]
