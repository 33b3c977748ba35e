"""Language codes of checkpoints as BCP-47 (RFC 5646), which is what requests use.

Knows: ISO 639-3 and its two-letter forms. Does not know: where codes are found.
"""

import re
from collections.abc import Sequence


def pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


# ISO 639-3 and 639-1: BCP-47 wants the shorter one.
SHORT = pairs(
    """
    aar:aa abk:ab afr:af aka:ak amh:am ara:ar arg:an asm:as ava:av ave:ae aym:ay aze:az bak:ba bam:bm bel:be
    ben:bn bis:bi bod:bo bos:bs bre:br bul:bg cat:ca ces:cs cha:ch che:ce chu:cu chv:cv cor:kw cos:co cre:cr
    cym:cy dan:da deu:de div:dv dzo:dz ell:el eng:en epo:eo est:et eus:eu ewe:ee fao:fo fas:fa fij:fj fin:fi
    fra:fr fry:fy ful:ff gla:gd gle:ga glg:gl glv:gv grn:gn guj:gu hat:ht hau:ha hbs:sh heb:he her:hz hin:hi
    hmo:ho hrv:hr hun:hu hye:hy ibo:ig ido:io iii:ii iku:iu ile:ie ina:ia ind:id ipk:ik isl:is ita:it jav:jv
    jpn:ja kal:kl kan:kn kas:ks kat:ka kau:kr kaz:kk khm:km kik:ki kin:rw kir:ky kom:kv kon:kg kor:ko kua:kj
    kur:ku lao:lo lat:la lav:lv lim:li lin:ln lit:lt ltz:lb lub:lu lug:lg mah:mh mal:ml mar:mr mkd:mk mlg:mg
    mlt:mt mon:mn mri:mi msa:ms mya:my nau:na nav:nv nbl:nr nde:nd ndo:ng nep:ne nld:nl nno:nn nob:nb nor:no
    nya:ny oci:oc oji:oj ori:or orm:om oss:os pan:pa pli:pi pol:pl por:pt pus:ps que:qu roh:rm ron:ro run:rn
    rus:ru sag:sg san:sa sin:si slk:sk slv:sl sme:se smo:sm sna:sn snd:sd som:so sot:st spa:es sqi:sq srd:sc
    srp:sr ssw:ss sun:su swa:sw swe:sv tah:ty tam:ta tat:tt tel:te tgk:tg tgl:tl tha:th tir:ti ton:to tsn:tn
    tso:ts tuk:tk tur:tr twi:tw uig:ug ukr:uk urd:ur uzb:uz ven:ve vie:vi vol:vo wln:wa wol:wo xho:xh yid:yi
    yor:yo zha:za zho:zh zul:zu
    """
)
# The standard language of a group, where people write the group's code.
SHORT |= pairs(
    """
    arb:ar cmn:zh ekk:et khk:mn kmr:ku lvs:lv npi:ne ory:or pbt:ps pes:fa plt:mg swh:sw uzn:uz ydd:yi zsm:ms
    als:sq azj:az gaz:om
    """
)
FORM = re.compile(r"(?P<language>[A-Za-z]{2,3})(?:[-_](?P<script>[A-Za-z]{4}))?(?:[-_](?P<region>[A-Za-z]{2}|\d{3}))?")


def bcp47(code: str) -> str:
    """Such as fr for fra, pt-BR for pt_br, zh-Hans for cmn_Hans; "" where it is the code of no language."""
    match = FORM.fullmatch(code)
    if match is None:
        return ""
    language = match["language"].lower()
    parts = [SHORT.get(language, language)]
    if match["script"]:
        parts.append(match["script"].title())
    if match["region"]:
        parts.append(match["region"].upper())
    return "-".join(parts)


def bcp47_of_all(codes: Sequence[str]) -> dict[str, str]:
    """Our code of each, all different; those of no language are left out.

    A script is named only where a language has several of them; the first of two codes of one language gets the short
    code, the second keeps its own.
    """
    scripts: dict[str, set[str]] = {}
    for code in codes:
        language, _, rest = bcp47(code).partition("-")
        scripts.setdefault(language, set()).add(rest)
    chosen: dict[str, str] = {}
    for code in codes:
        language, _, rest = bcp47(code).partition("-")
        is_only_script = len(rest) == 4 and len(scripts[language]) == 1
        for ours in (language if is_only_script else bcp47(code), code.replace("_", "-")):
            if language and ours and ours not in chosen.values():
                chosen[code] = ours
                break
    return chosen
