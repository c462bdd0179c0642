"""How tables write what they show."""

import streamlit as st

NUMBER = st.column_config.NumberColumn(format="localized")
"""A column of numbers, as the browser's language writes them: they are still sorted as numbers."""
