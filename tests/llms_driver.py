"Asks a server for many answers through a cache, until somebody ends it: `python tests/llms_driver.py URL CACHE N CONCURRENCY`."
import signal, sys
from pe_nb.llms.cache import AnswerCache
from pe_nb.llms.chat import Request
from pe_nb.llms.openai_chat import OpenAIChat

if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background begins with Ctrl-C ignored
    url, path, n, concurrency = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with AnswerCache(path) as cache:
        print('begun', flush=True)
        answers = OpenAIChat('m', url, cache=cache, concurrency=concurrency, max_completion_tokens=20).answers([Request(f'review {i}') for i in range(n)])
        print(sum(a.ok for a in answers), flush=True)
