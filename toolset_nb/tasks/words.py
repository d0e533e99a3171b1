"""Whether words ask or refuse, as told by the usual phrases of ten languages."""

import re

# A question mark, or a sentence that tells the person to say what is missing.
ASKING = re.compile(
    r"[?？]|(?:^|[.!:;]\s+|\n)(?:please,? |kindly )?(?:(?:tell|give|send) me (?!if\b|when\b|a (?:moment|second|minute)\b)|"
    r"let me know (?:which|what|where|who|how|the)\b|(?:name|choose|pick|specify) (?:the|a|an|one|which)\b)",
    re.I,
)
# The offer that closes many replies.
COURTESY = re.compile(
    r"(?:(?:is there|do you (?:need|want)|(?:can|may|could|shall) i (?:help|assist|do)(?: you)?(?: with)?|would you like) )?"
    r"\banything else(?: (?:that )?(?:i|we|you) [^.?!\n]*| today)?\s*[?？]"
    r"|\b(?:how|what) (?:else )?(?:can|may) i (?:else )?(?:help|assist|do for)\b[^.?!\n]*[?？]"
    r"|\b(?:sonst noch (?:et)?was|algo más|autre chose)\s*[?？]",
    re.I,
)
REFUSAL = re.compile(
    r"\b(?:can(?:no|')t|can (?:not|no|neither|make no)|unable|not able|no (?:tool|way)|beyond|outside|only work|"
    r"out of (?:my )?reach|not something i|do(?: not|n't) (?:have|tell)|i have no|is not possible|"
    r"kann\b[^.?!]{0,40}\b(?:nicht|nichts|niemand\w*)|habe ich (?:nicht|kein\w*)|(?:ne|n') ?peux (?:pas|rien)|je n'ai|"
    r"no (?:puedo|tengo)|non posso|não (?:tenho|posso|consigo)|kan (?:ik )?(?:niets?|inte|ikke)|nie mogę)\b",
    re.I,
)


def refuses(text: str) -> bool:
    """Whether words say that something cannot be done, as told by the usual phrases."""
    return REFUSAL.search(text.replace("’", "'")) is not None


def asks(text: str) -> bool:
    """Whether words ask for something that is needed; an offer of more help is no question."""
    return ASKING.search(COURTESY.sub("", text)) is not None


def word_faults(expected: str, said: str) -> list[str]:
    """Why words do not ask, or refuse, where that is due."""
    if expected == "ask" and not asks(said):
        return ["no question was asked"]
    if expected == "refuse" and said and not refuses(said):
        return ["it was not said that this cannot be done"]
    return []
