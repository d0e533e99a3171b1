"""The language of a wording, told by its small words; it only has to keep apart what stands in datasets/voices."""

import re
from collections import Counter
from functools import cache

MARKS = {
    "en": (
        "the a of to in is it my and for this that what which with on at your me please you i have not new one as by be will "
        "called named where only from all do does show list read open make add put find there was has if them its these want "
        "need search look note notes folder change replace delete copy move rename next here first under about particular drag "
        "onto so speak should same place btw via come todo w overwrite something"
    ),
    "de": (
        "der die das den dem des ein eine einen einem einer und ist nicht mir mich ich bitte im von vom zu zur zum mit auf für "
        "als wie was welche welcher welchen welches nur alle alles noch mal sich dann aus dort da so soll hab habe kann kannst "
        "hier schon neue neuen zeig such lies lösch häng schreib notiz notizen ordner sitzung stand gib mach weg befehl bei "
        "nach bis heißt heißen namens meine meinen meinem unter oben unten leg gleich wenn steht starte gespeicherten letzten "
        "ich's neuer ohne lade lad nimm stell falls sonst zwischen ältesten älteste leer ordnername arbeitsbereich agenten prüf "
        "zwei lass muss wird werden mein zeile zeilen durch ersetze geh rein gegen letzte arbeitsbereiche zweck beschreibung "
        "einmal bild frag hallo guten bedeutet machst liegt"
    ),
    "fr": (
        "le la les un une des du de et est dans que qui pour sur avec mes mon ma moi s'il te plaît je j'ai tu ce cette ces sous "
        "nouvelle nouveau ouvre cherche trouve lis mets ajoute crée fais montre supprime change remplace note dossier quels "
        "quelles quel d'un l'agent en au aux ne pas ici ça refait échoué tout toutes tous rien jette prends peux copie range "
        "affiche lance où déplace sa reste mais donne nom à quelque chose ajouter fin il y déjà fichier donc ceci exécute décris "
        "l'état l'espace renomme on faire merci c'est t'es texte reformule si"
    ),
    "es": (
        "el los las una unos de del y es en que para por con mis mi me esta este esto lo al se no nota notas carpeta abre busca "
        "borra cambia añade pon haz seguimos muéstrame enséñame crea quiero dime lee léeme qué cuáles dónde hay sin más como "
        "llama llamas solo sólo todo todas todos ponle quita carga vuelve trabajo estado sesión guarda guárdame mueve después "
        "antes favor ha dado otra vez inténtalo la un necesito algo hace eliminar apunte créame llame responda ejecuta tengo "
        "falta donde pone tiene poner retoma duplica llamará sobre búscala pásala paso mira vacía ese a otro ordena hecho hazme "
        "líneas estos dos uno mensaje bórrala pregúntale sobra si"
    ),
    "it": (
        "il lo gli una di del della dello nel nella e è che per con mi mia mie miei questo questa queste le non più solo tutto "
        "tutte tutti nota cartella apri cerca trova leggi leggimi mostrami fammi metti aggiungi crea cambia elimina cancella "
        "sposta copia quali cosa dove c'è sono grazie puoi vorrei da dal carica sessione nuova nuovo stato in senza la un tra "
        "troppo eliminala caos scritto correggilo via pagina voglio assistente avviare andiamo avanti fatto fare istruzioni "
        "vedere controlla contiene niente se aprimi ci io fai esegui quello a allega chiedi fondo cima colpo torniamo chi ha "
        "come si elenco riprendiamo scrivi sul al buona ciao risultati schermo uno"
    ),
    "nl": (
        "de het een van en is in dat die voor met mijn me wat welke waar zoek open maak zet voeg toe verwijder hernoem "
        "verplaats kopieer map notitie notities graag alsjeblieft naar niet alleen alle er hoe heet lees laat toon geef deze "
        "dit op staat sessie haal naam zoals wel nog nu gooi zou ik je hij daar onderaan bovenaan vervang werkruimte herstel "
        "opgeslagen toestand regels regel uit bij vraag kijk leeg mag doe aan omschrijving hebben goedemorgen eerst alles al"
    ),
    "pt": (
        "o os as um uma do da dos das no na nas e é que para por com meu minha minhas meus me esta este isto não nota notas "
        "pasta abre procura apaga muda acrescenta põe faz mostra cria quero diz lê quais onde há sem mais só tudo todas todos "
        "ao à ficheiros sessão estado guarda carrega favor dá num numa deu erro tenta duas coisas encontra sobre troque você "
        "consegue colocar dentro a palavra já agora envia apague se estiver"
    ),
    "sv": (
        "och att en ett det den som är på för med av mitt mina min vad vilka ta bort lägg till skapa byt öppna sök visa läs "
        "tack inte från mapp anteckningen anteckning ny namn i så där sätt slå låt har städa upp du snäll kör här hos bara efter "
        "anteckningarna mappen hej under"
    ),
    "da": (
        "og at en et det den som er på for med af mit mine min hvad hvilke fjern tilføj opret skift åbn søg vis læs tak ikke "
        "fra mappe noten note ny navn hvis der så ret til står stadig spørg gennem hos slet mappen udskift jeg tilbage navnet "
        "efter hej under mapper i"
    ),
    "pl": (
        "i w na do z się jest nie to mi moje mój proszę notatkę notatki folder usuń dodaj otwórz znajdź pokaż zmień utwórz "
        "przenieś zapisz stan sesję pod nazwę jako tylko wszystkie agenta zamień obok dla uruchom sesji ile ma"
    ),
}
KNOWN = {name: frozenset(marks.split()) for name, marks in MARKS.items()}
SHARED = Counter(word for words in KNOWN.values() for word in words)
LETTERS = {"de": "äöüß„", "fr": "èêçœ«ù", "es": "ñ¿¡", "it": "ò", "pt": "ãõ", "sv": "å", "da": "æø", "pl": "łąęśżźń"}
SLOT = re.compile(r"\{\w+\}")


@cache
def language(wording: str) -> str:
    """Two letters; "en" where nothing tells."""
    text = SLOT.sub(" ", wording.lower())
    said = re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", text)
    counts = {
        name: sum(3 if SHARED[word] == 1 else 1 for word in said if word in words)
        + 2 * sum(map(text.count, LETTERS.get(name, "")))
        for name, words in KNOWN.items()
    }
    best, count = max(counts.items(), key=lambda entry: entry[1])
    return best if count else "en"
