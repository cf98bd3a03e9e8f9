"""What checks the annotations of metarep while the tests run: beartype, with an int accepted for a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
