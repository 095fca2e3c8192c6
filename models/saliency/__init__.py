"""Attribution: which input values, bands, dates and places a map hangs on."""
