"""Where sentences end: what the library says, and what becomes of what it cannot read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.text import sentences
from service.text.sentences import sentence_spans


def found(text: str, language: str = "en") -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text, language)]


@pytest.mark.parametrize("space", ["\xa0", "\u202f", "\u3000", "\u2009", "\u1680"])
@pytest.mark.parametrize("language", ["en", "fr", "ru", "pt", "ja"])
def test_spaces_of_several_bytes_before_a_full_stop(space: str, language: str) -> None:
    """The library (1.0.32) panicked on them after a capital letter."""
    assert found(f"Plan B{space}. 1 + K{space}. Ok!", language)[-1].endswith("Ok!")
    assert "".join(found(f"Plan B{space}.", language)) == f"Plan B{space}."


class PanicException(BaseException):
    """As pyo3's, which is no Exception."""


@pytest.mark.parametrize("error", [PanicException("a slice"), UnicodeEncodeError("utf-8", "a", 0, 1, "surrogate")])
def test_line_that_the_library_cannot_read_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(language: str, text: str) -> list[str]:
        raise error

    monkeypatch.setattr(sentences.sentencex, "segment", fail)
    assert found("One. Two.\nThree.") == ["One. Two.", "Three."]


def test_pieces_that_do_not_add_up_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences.sentencex, "segment", lambda language, text: ["One. ", "Tw"])
    assert found("One. Two.") == ["One. Two."]


def test_an_interrupt_is_no_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(language: str, text: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sentences.sentencex, "segment", interrupt)
    with pytest.raises(KeyboardInterrupt):
        found("One. Two.")


@pytest.mark.parametrize("part", ["「はい。」", "«a. ", "He came. ", '"No!" he said. ', "x", "word ", "(a. b) "])
def test_work_is_linear(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """The library's time is a square of what it is given at once, as in lines of quotations."""
    given, segment = list[int](), sentences.sentencex.segment

    def counted(language: str, text: str) -> list[str]:
        given.append(len(text))
        pieces: list[str] = segment(language, text)
        return pieces

    monkeypatch.setattr(sentences.sentencex, "segment", counted)
    text = (part * 60_000)[:60_000]
    assert "".join(found(text, "ja")).replace(" ", "") == text.replace(" ", "")
    assert max(given) <= sentences.WINDOW_CHARACTERS
    assert sum(given) <= 3 * len(text)


@pytest.mark.parametrize("sentence", ["He came, and saw.", 'She said: "No! Never!"', "これは本です。"])
def test_long_lines_are_divided_like_short_ones(sentence: str) -> None:
    space = "" if sentence.endswith("。") else " "
    text = space.join([sentence] * (sentences.WINDOW_CHARACTERS // 4))
    assert found(text) == [sentence] * (sentences.WINDOW_CHARACTERS // 4)


@given(st.lists(st.sampled_from(["a", "B. ", "「", "。", "」", " ", "! ", '"', "(", ")", "é\xa0."])).map("".join))
def test_windows_cover_the_line(line: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentences, "WINDOW_CHARACTERS", 8)
        patch.setattr(sentences, "SURE_CHARACTERS", 6)
        ends = sentences.boundaries(line, "en")
    assert ends == sorted(set(ends))
    assert ends[-1] == len(line)


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("fr", "Par ailleurs, M. Beaulieu insiste."),
        ("fr", "Je remercie M. de Roo (M. Bowis aussi)."),
        ("fr", "J.-P. Martin le sait, Mgr. X et Dr. Y aussi."),
        ("fr", "En 300 av. J.-C. il mourut, au XIXe s. fut fait le reste, c.-à-d. tout."),
        ("de", "Im 19. Jahrhundert kam am 31. Dezember der 16. Präsident."),
        ("de", "Der XXVIII. Bericht der Kommission liegt vor."),
        ("da", "Den 3. maj kom Frk. Olsen, dvs. hun, kl. 5, f.eks. til Dr. Hansen."),
        ("ca", "El Sr. Puig i la Sra. Mas van venir, pàg. 5."),
        ("pl", "W 1990 r. było 3. maja, m.in. tam."),
        ("nb", "Den 3. mai kom han, f.eks. hit."),
        ("hr", "Dana 3. svibnja je došao u 19. stoljeće."),
        ("tr", "Bu 20. yüzyılda oldu."),
        ("ru", "Это т. е. да."),
        ("nl", "Dat is d.w.z. zij en mevr. de Vries."),
        ("hi", "यह डॉ. शर्मा हैं।"),
        ("ar", "هذا د. أحمد."),
        ("vi", "TP. Hồ Chí Minh rất đẹp."),
        ("th", "ดร. สมชาย มา พ.ศ. 2566 แล้ว."),
    ],
)
def test_full_stops_that_end_no_sentence(language: str, sentence: str) -> None:
    assert found(sentence, language) == [sentence]
    assert len(found(f"{sentence} {sentence}", language)) == 2


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Es waren 20.| Dann kam er."),
        ("de", "Das war 1990.| Präsident war ein anderer."),
        ("fr", "C'est le plan B.| Le voilà."),
        ("fr", "Il mourut en 25 av. J.-C.| Puis rien."),
        ("en", "It was in 1990.| he said so."),
        ("en", "i am tired.| going to bed."),
        ("en", "Ask M.| She knows."),
        ("hr", "Bilo je 1990.| Onda je došao."),
        ("pl", "To cafe\u0301s.| tak."),
    ],
)
def test_full_stops_that_end_one(language: str, text: str) -> None:
    assert found(text.replace("|", ""), language) == [part.strip() for part in text.split("|")]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ja", "彼は「はい。」と言った。|「そう。」|彼女は言った。"),
        ("ja", "「どうぞ。」|「いいえ。」って何？|うん。"),
        ("zh", "你好!|我是小明.|你呢?|用3.5元."),
        ("zh", "我用Node.js写的.|好吧"),
        ("hi", "वह आया।|वह गया॥|कौन?"),
        ("my", "သူလာ၏။|သူသွား၏။"),
        ("am", "ሰላም።|እንዴት ነህ?"),
        ("hy", "Բարև։|Լավ եմ։"),
    ],
)
def test_full_stops_without_a_space(language: str, text: str) -> None:
    assert found(text.replace("|", ""), language) == text.split("|")


@pytest.mark.parametrize(("language", "rules"), [("ca", "es"), ("oc", "es"), ("da", "de"), ("kl", "de"), ("sv", "sv")])
def test_rules_that_take_long_are_those_of_another_language(
    monkeypatch: pytest.MonkeyPatch, language: str, rules: str
) -> None:
    asked = list[str]()

    def segment(language: str, text: str) -> list[str]:
        asked.append(language)
        return [text]

    monkeypatch.setattr(sentences.sentencex, "segment", segment)
    found("One. Two.", language)
    assert asked == [rules]
