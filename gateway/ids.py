"""Names for what begins here: generations, jobs, sessions."""


def new_id(wall: float, chance: int) -> str:
    """24 hex digits, unique and sortable by time: of a generation, a job, a session. ``wall``: Unix seconds; ``chance``: 52 random bits."""
    return (int(wall * 1000) << 52 | chance).to_bytes(12).hex()
