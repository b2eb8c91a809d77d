"""The program's exceptions, and a line of text about any other exception."""


class KitError(Exception):
    """An error that retrying does not fix. Its text states the problem and the remedy."""


class Fault(Exception):
    """The bonnet, its connection or the camera failed; retrying may help."""


class Stop(BaseException):
    """A signal asked the program to end."""

    def __init__(self, number: int):
        BaseException.__init__(self, number)
        self.number = number


def explain(error: BaseException) -> str:
    """One line about an exception; exceptions of Google's client contain little text."""
    name, text = type(error).__name__, " ".join(str(error).split())
    if name == "SpicommTimeoutError":
        return "the bonnet did not answer within %g s" % getattr(error, "timeout", 0)
    if name == "SpicommOverflowError":
        return "the bonnet's answer of %s bytes is too large for the buffer" % getattr(error, "size", "?")
    if name == "SpicommError":
        return "the transfer to the bonnet failed"
    if name == "DecodeError":
        return "the answer is not a message of the bonnet (%s)" % text
    if isinstance(error, OSError) and error.strerror:
        return "%s: %s" % (error.filename, error.strerror) if error.filename else error.strerror
    if isinstance(error, TypeError):  # the client parses None when the connection is closed
        return "the connection was closed (%s)" % text
    return text or name


def sentence(text: str) -> str:
    """The text on one line, with a period at its end."""
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else text + "."
