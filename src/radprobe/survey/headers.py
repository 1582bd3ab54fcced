"""What the columns of somebody's table are by their headers: who is on an image, which part, which file. No labels."""

import re

from radprobe.datasets.csv_table import PARTS, Line
from radprobe.datasets.folder import sign
from radprobe.survey.matching import CALLED, Listing, words

# names of columns, without case and marks between their words; the first that is there is taken
PATIENT: tuple[str, ...] = ("patient", "patientid", "patientidentifier", "patientnumber", "patientno", "patientnr")
PATIENT += ("patientkey",)
PATIENT += ("patientnum", "patients", "patientsid", "patid", "patno", "patnr", "patnum", "pat", "pid", "ptid", "ptno")
PATIENT += ("mrn", "patientenid", "patientennr", "patientennummer", "patientin", "pseudonym", "pseudonymid")
PATIENT += ("pseudoid", "subject", "subjectid", "subjectno", "subjectnr", "usubjid", "subjid", "subjno", "subj")
PATIENT += ("proband", "probandid", "probandennr", "participant", "participantid", "participantno", "person")
PATIENT += ("personid", "rid", "fallnummer", "fallnr", "fallid", "casenumber", "caseno", "caseid", "case")
NOBODY = {"?", "-", "unknown", "unbekannt", "anonymous", "anonymized", "anonymised", "anonym", "none", "nobody"}
SPLIT = {"split", "set", "subset", "part", "partition", "fold", "phase", "datasplit", "usage"}
# words in the names of columns that say something else about an image
NO_LABEL = {"id", "uid", "date", "time", "path", "file", "filename", "name", "note", "notes", "comment", "age", "sex"}
NO_LABEL |= {"gender", "view", "position", "width", "height", "spacing", "size", "weight", "follow", "manufacturer"}
NO_LABEL |= {"scanner", "site", "hospital", "device", "modality", "laterality", "side", "slices", "index", "url"}
NO_LABEL |= {"male", "female", "visit", "report", "method", "reader", "operator", "arm", "timepoint", "magnification"}
NO_LABEL |= {"geschlecht", "alter", "seite", "untersucher", "datum", "bemerkung", "bemerkungen"}
NO_LABEL |= {"fold", "folds", "kfold", "split", "splits", "subset", "partition", "datasplit", "train", "training"}
# of a patient, whatever else it says: who it is, where a column of PATIENT says that as well
OF_PATIENT = {"patient", "patients", "patienten", "patientin", "pat", "pt", "subject", "subj", "proband", "probanden"}
ID_ENDS = ("id", "nr", "no", "nummer", "number", "uid", "num", "key")
ID_WORDS = {"id", "uid", "fall", "no", "nr", "number", "index", "name", "case", "scan", "study", "accession", "key"}
# a name of such words alone says a part: is_test, but not rapid_test
PART = {"is", "in", "set", "test", "testing", "val", "valid", "validation", "dev", "part", "data"}
SAYS_PART = PART | SPLIT | {"train", "training", "kfold", "folds"}


def of_patient(column: str) -> bool:
    """Say whether a column says something of patients, by a word of its name."""
    return bool(OF_PATIENT & {*words(column)}) or plain(column).startswith(("patient", "subject", "proband"))


def plain(column: str) -> str:
    """Return the letters of a column's name."""
    return re.sub(r"[^a-z]", "", column.lower())


def patient_column(listing: Listing) -> str | None:
    """Return the column of the patients, by its name: `patient`, or the first in which some images share one."""
    found = patient_columns(listing)
    first = next(iter(found), None)
    if first and plain(first) == PATIENT[0]:
        return first
    return next((name for name in found if _repeats(listing, name)), first)


def patient_columns(listing: Listing) -> list[str]:
    """Return the columns that are called as patients are, the likeliest first; one of 0 and 1 is a label."""
    names = [name for name in listing.table.columns if name and listing.table.columns.count(name) == 1]
    called = {name: re.sub(r"[\W_]", "", name.casefold()) for name in names}
    found = [
        name
        for name in names
        if called[name] in PATIENT and (called[name] == PATIENT[0] or not _of_signs(listing, name))
    ]
    return sorted(found, key=lambda name: PATIENT.index(called[name]))


def _of_signs(listing: Listing, column: str) -> bool:
    values = {sign(cell) for cell in listing.values(column) if cell}
    return bool(values) and values <= {0, 1}


def _repeats(listing: Listing, column: str) -> bool:
    values = listing.values(column)
    return len({*values}) < len(values)


def unread_split(listing: Listing) -> tuple[str, Line] | None:
    """Return the column that is called a split, and the first row in which it holds no part."""
    others = {listing.column, listing.mask, patient_column(listing)}
    for name in listing.table.columns:
        said = {*words(name)} - {"is", "in", "data"}  # none of a column without a name, as pandas writes its index
        called = name not in others and (plain(name) in SPLIT or (said and said <= SAYS_PART))
        lost = [line for line in listing.lines if line.cells.get(name, "").lower() not in PARTS]
        if called and lost:
            return name, lost[0]
    return None


def split_column(listing: Listing) -> str | None:
    """Return the column of the parts, by its name and what it holds."""
    for name in listing.table.columns:
        if plain(name) in SPLIT and {cell.lower() for cell in listing.values(name)} <= PARTS.keys():
            return name
    return None


def like_patients(listing: Listing) -> list[str]:
    """Return columns that say something of patients by their names, and may say better who they are than the one taken.

    Where that one has another patient in each row, these are columns in which some rows are alike.
    """
    chosen, called = patient_column(listing), patient_columns(listing)
    like = [name for name in listing.table.columns if name and name not in (chosen, listing.column)]
    like = [name for name in like if name in called or (of_patient(name) and _may_say_who(listing, name))]
    if chosen is None:
        return like
    return [] if _repeats(listing, chosen) else [name for name in like if _repeats(listing, name)]


def _may_say_who(listing: Listing, column: str) -> bool:
    """Say whether a column of patients may tell them apart: it is no age, sex or state of theirs."""
    else_ = (NO_LABEL - ID_WORDS) & {*words(column)} or plain(column).endswith(("age", "sex", "gender"))
    return not else_ and not _of_signs(listing, column)


def says_who(column: str) -> bool:
    """Say whether a column is called as files, cases or patients are: image id, No, Bildnummer."""
    name, said = plain(column), {*words(column)}
    begins = name.startswith(("image", "img", "file", "bild", "aufnahme", "slide", "record", "exam", "sample", "scan"))
    return bool(said & (CALLED | OF_PATIENT | ID_WORDS)) or name in PATIENT or begins or name.endswith(ID_ENDS)
