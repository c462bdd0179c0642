/*
 * One Ollama host that costs next to nothing: an epoll HTTP/1.1 server for benchmarks.
 *
 *   sim PORT
 *
 * GET  /api/version /api/tags /api/ps      fixed answers: one model, bench:latest, loaded
 * POST /api/generate /api/chat             "stream":false → one JSON object at once; otherwise NDJSON, chunked:
 *        options.num_predict = N             N chunks and the final one with "done":true
 *        options.rate        = R             R chunks per second (may be a fraction); 0 = as fast as the socket takes them
 *        options.silent_ms   = S             says nothing, not even headers, for S milliseconds
 * GET  /_stats                             live generations, chunks sent, generations whose client left, when the last one did, connections
 * POST /_finish                            every live stream ends with its next chunk
 * POST /_set                               defaults for num_predict, rate and silent_ms, for clients that cannot say them
 *
 * Each paced chunk is one write, as Ollama's flush after every token, and carries its send time (CLOCK_MONOTONIC).
 * The head travels with the first chunk; the terminator is a write of its own. Both are what Go's net/http does.
 *
 * A connection is always in one of these states:
 *   HEAD    reading a request's head          → BODY or, without a body, ANSWER
 *   BODY    reading and dropping its body     → ANSWER (its first BODY_KEPT bytes are searched for the options)
 *   SILENT  waiting before the headers        → PACED, BLAST or, for one JSON object, HEAD (timer)
 *   PACED   one chunk per timer               → HEAD after the terminator
 *   BLAST   as fast as the socket takes       → HEAD after the terminator
 */
#include "wire.h"
#include <strings.h>
#include <sys/resource.h>

#define HEAD_MAX 16384
#define BODY_KEPT 16384
#define BLAST_BATCH 500
#define DIGEST "be0c4b9e2f0d1a63c5874b12e09fd8a7364c5f1b2a908e7d6c5b4a39281706f5"
#define DETAILS "\"details\":{\"parent_model\":\"\",\"format\":\"gguf\",\"family\":\"llama\",\"families\":[\"llama\"],\"parameter_size\":\"8.0B\",\"quantization_level\":\"Q4_K_M\"}"

enum state { HEAD, BODY, SILENT, PACED, BLAST };

struct conn {
    int fd;
    enum state state;
    uint32_t generation; /* bumped on close and after each answer: stale timers are recognised by it */
    uint64_t serial;     /* of the live generation, 0 when there is none */
    uint64_t total, sent, period_ns, due;
    int chat, stream, close_after, want_write, chunked;
    uint64_t body_left;     /* of a Content-Length body, or of the chunk being read */
    int chunk_state;        /* of a chunked body: 0 size line, 1 data, 2 line end after data, 3 trailer */
    char chunk_line[32];
    unsigned chunk_line_len;
    char method[8], path[64];
    char in[HEAD_MAX + 1];
    size_t in_len;
    char *body;
    size_t body_len;
    char *out; /* what the socket did not take yet */
    size_t out_len, out_off;
};

struct timer {
    uint64_t due;
    int fd;
    uint32_t generation;
};

static int epoll_fd, listen_fd;
static struct conn **conns;
static int conns_cap;
static struct timer *heap;
static size_t heap_len, heap_cap;
static uint64_t serials, finished_below, live, requests, chunks, aborted, last_abort_ns, connections, accepted;
static double default_predict = 200, default_rate = 50, default_silent_ms = 0;
static char blast_buffer[BLAST_BATCH * 160];

/* ---- timers: a binary heap ---- */

static void timer_add(uint64_t due, const struct conn *c)
{
    if (heap_len == heap_cap) {
        heap_cap = heap_cap ? heap_cap * 2 : 1024;
        heap = must(realloc(heap, heap_cap * sizeof *heap));
    }
    size_t i = heap_len++;
    while (i && heap[(i - 1) / 2].due > due) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = (struct timer){due, c->fd, c->generation};
}

static struct timer timer_pop(void)
{
    struct timer first = heap[0], last = heap[--heap_len];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < heap_len; i = child) {
        if (child + 1 < heap_len && heap[child + 1].due < heap[child].due) child++;
        if (heap[child].due >= last.due) break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return first;
}

static double chance(void)
{
    static uint64_t x = 88172645463325252ULL;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (double)(x >> 11) / 9007199254740992.0;
}

/* ---- writing ---- */

static void watch(struct conn *c, int want_write)
{
    if (c->want_write == want_write) return;
    c->want_write = want_write;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (want_write ? (uint32_t)EPOLLOUT : 0), .data.fd = c->fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void end_generation(struct conn *c, int client_left)
{
    if (!c->serial) return;
    c->serial = 0;
    live--;
    if (client_left) {
        aborted++;
        last_abort_ns = now_ns();
    }
}

static void drop(struct conn *c)
{
    end_generation(c, 1);
    close(c->fd);
    conns[c->fd] = NULL;
    connections--;
    free(c->body);
    free(c->out);
    free(c);
}

/* Returns 0 when the connection is gone. What the socket does not take is kept and sent on EPOLLOUT. */
static int put(struct conn *c, const char *data, size_t len)
{
    if (c->out_len == 0) {
        ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            drop(c);
            return 0;
        }
        if (n > 0) data += n, len -= (size_t)n;
        if (!len) return 1;
    }
    if (c->out_off) {
        memmove(c->out, c->out + c->out_off, c->out_len - c->out_off);
        c->out_len -= c->out_off;
        c->out_off = 0;
    }
    c->out = must(realloc(c->out, c->out_len + len));
    memcpy(c->out + c->out_len, data, len);
    c->out_len += len;
    watch(c, 1);
    return 1;
}

static int put_json(struct conn *c, const char *status, const char *json)
{
    char head[256];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %s\r\nContent-Type: application/json; charset=utf-8\r\n"
                     "Date: Sun, 22 Nov 2026 13:35:22 GMT\r\nContent-Length: %zu\r\n\r\n",
                     status, strlen(json));
    size_t json_len = strcmp(c->method, "HEAD") ? strlen(json) : 0;
    char *all = must(malloc((size_t)n + json_len));
    memcpy(all, head, (size_t)n);
    memcpy(all + n, json, json_len);
    int open = put(c, all, (size_t)n + json_len);
    free(all);
    return open;
}

/* ---- answers ---- */

static const char GENERATE_OPEN[] = "{\"model\":\"bench:latest\",\"created_at\":\"2026-11-22T13:35:22.149327503Z\",\"response\":\"";
static const char CHAT_OPEN[] = "{\"model\":\"bench:latest\",\"created_at\":\"2026-11-22T13:35:22.149327503Z\",\"message\":{\"role\":\"assistant\",\"content\":\"";

/* One chunk with its framing; returns its length. */
static size_t render_chunk(const struct conn *c, char *out, uint64_t now, int last)
{
    char line[640];
    const char *open = c->chat ? CHAT_OPEN : GENERATE_OPEN, *close_text = c->chat ? "\"}" : "\"";
    size_t n = strlen(open);
    memcpy(line, open, n);
    line[n++] = '@';
    put_stamp(line + n, now);
    n += STAMP_DIGITS;
    if (last)
        n += (size_t)sprintf(line + n,
                             "%s,\"done\":true,\"done_reason\":\"stop\",\"total_duration\":321997928,\"load_duration\":877534,"
                             "\"prompt_eval_count\":14,\"prompt_eval_duration\":65063999,\"eval_count\":%" PRIu64 ",\"eval_duration\":249691000}\n",
                             close_text, c->sent);
    else {
        size_t m = strlen(close_text);
        memcpy(line + n, close_text, m);
        memcpy(line + n + m, ",\"done\":false}\n", 15);
        n += m + 15;
    }
    size_t h = (size_t)sprintf(out, "%zx\r\n", n);
    memcpy(out + h, line, n);
    memcpy(out + h + n, "\r\n", 2);
    return h + n + 2;
}

static void read_on(struct conn *c);

static void answered(struct conn *c)
{
    end_generation(c, 0);
    c->generation++;
    c->state = HEAD;
    free(c->body);
    c->body = NULL;
    c->body_len = 0;
    if (c->close_after) {
        if (!c->out_len) drop(c);
        return;
    }
    if (c->in_len) read_on(c);
}

static void send_chunk(struct conn *c, uint64_t now)
{
    char out[1024];
    size_t n = 0;
    int last = c->sent >= c->total || c->serial <= finished_below;
    if (c->sent == 0)
        n = (size_t)sprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
                                 "Date: Sun, 22 Nov 2026 13:35:22 GMT\r\nTransfer-Encoding: chunked\r\n\r\n");
    n += render_chunk(c, out + n, now, last);
    chunks++;
    if (!last) c->sent++;
    if (!put(c, out, n)) return;
    if (last) {
        if (put(c, "0\r\n\r\n", 5)) answered(c);
        return;
    }
    if (c->state == BLAST || c->out_len) return; /* the next one is due when the socket is writable */
    /* Streams that start together must not tick together: the second chunk comes after a random part of the period. */
    c->due = c->sent == 1 ? now + (uint64_t)(chance() * (double)c->period_ns) : c->due + c->period_ns;
    timer_add(c->due, c);
}

static void blast(struct conn *c)
{
    for (int batch = 0; batch < 16 && !c->out_len; batch++) {
        if (c->sent >= c->total || c->sent == 0 || c->serial <= finished_below) {
            int done = c->sent >= c->total || c->serial <= finished_below;
            uint32_t generation = c->generation;
            int fd = c->fd;
            send_chunk(c, now_ns());
            if (done || conns[fd] != c || c->generation != generation) return;
            continue;
        }
        uint64_t now = now_ns();
        size_t n = 0;
        for (int i = 0; i < BLAST_BATCH && c->sent < c->total; i++) {
            n += render_chunk(c, blast_buffer + n, now, 0);
            c->sent++;
            chunks++;
        }
        if (!put(c, blast_buffer, n)) return;
    }
    watch(c, 1);
}

static void start_answer(struct conn *c)
{
    uint64_t now = now_ns();
    if (!c->stream) {
        char json[640];
        snprintf(json, sizeof json,
                 "%s@%019" PRIu64 " A small answer of an ordinary length, so that a gateway has something to carry back.%s,"
                 "\"done\":true,\"done_reason\":\"stop\",\"total_duration\":321997928,\"load_duration\":877534,"
                 "\"prompt_eval_count\":14,\"prompt_eval_duration\":65063999,\"eval_count\":12,\"eval_duration\":249691000}",
                 c->chat ? CHAT_OPEN : GENERATE_OPEN, now, c->chat ? "\"}" : "\"");
        if (put_json(c, "200 OK", json)) answered(c);
        return;
    }
    c->state = c->period_ns ? PACED : BLAST;
    c->due = now;
    if (c->state == PACED) send_chunk(c, now);
    else blast(c);
}

/* The number after "key": anywhere in the body. */
static double number_in(const char *body, const char *key, double otherwise)
{
    const char *at = strstr(body, key);
    if (!at) return otherwise;
    at += strlen(key);
    while (*at == ' ' || *at == ':') at++;
    char *end;
    double value = strtod(at, &end);
    return end == at ? otherwise : value;
}

static int says_false(const char *body, const char *key)
{
    const char *at = strstr(body, key);
    if (!at) return 0;
    at += strlen(key);
    while (*at == ' ' || *at == ':') at++;
    return !strncmp(at, "false", 5);
}

static void generate(struct conn *c, const char *body)
{
    double rate = number_in(body, "\"rate\"", default_rate);
    double silent_ms = number_in(body, "\"silent_ms\"", default_silent_ms);
    c->chat = !strcmp(c->path, "/api/chat");
    c->stream = !says_false(body, "\"stream\"");
    c->total = (uint64_t)number_in(body, "\"num_predict\"", default_predict);
    c->period_ns = rate > 0 ? (uint64_t)(1e9 / rate) : 0;
    c->sent = 0;
    c->serial = ++serials;
    live++;
    if (silent_ms > 0) {
        c->state = SILENT;
        timer_add(now_ns() + (uint64_t)(silent_ms * 1e6), c);
        return;
    }
    start_answer(c);
}

static void answer(struct conn *c)
{
    static const char ROW[] = "\"name\":\"bench:latest\",\"model\":\"bench:latest\",\"size\":4920753328,\"digest\":\"" DIGEST "\"," DETAILS;
    char json[1024];
    const char *status = "200 OK";
    char *body = c->body ? c->body : "";
    requests++;
    if (!strcmp(c->path, "/api/chat") || !strcmp(c->path, "/api/generate")) {
        generate(c, body);
        return;
    }
    if (!strcmp(c->path, "/api/version")) snprintf(json, sizeof json, "{\"version\":\"0.13.0\"}");
    else if (!strcmp(c->path, "/api/tags"))
        snprintf(json, sizeof json, "{\"models\":[{%s,\"modified_at\":\"2026-11-20T09:12:44.512345678Z\"}]}", ROW);
    else if (!strcmp(c->path, "/api/ps"))
        snprintf(json, sizeof json, "{\"models\":[{%s,\"expires_at\":\"2319-02-14T11:20:00.579925016Z\",\"size_vram\":4920753328,\"context_length\":4096}]}", ROW);
    else if (!strcmp(c->path, "/api/show"))
        snprintf(json, sizeof json, "{\"modelfile\":\"\",\"template\":\"{{ .Prompt }}\"," DETAILS ",\"model_info\":{},\"capabilities\":[\"completion\"]}");
    else if (!strcmp(c->path, "/")) snprintf(json, sizeof json, "\"Ollama is running\"");
    else if (!strcmp(c->path, "/_stats"))
        snprintf(json, sizeof json,
                 "{\"live\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"chunks\":%" PRIu64 ",\"aborted\":%" PRIu64 ",\"last_abort_ns\":%" PRIu64 ",\"connections\":%" PRIu64 ",\"accepted\":%" PRIu64 "}",
                 live, requests, chunks, aborted, last_abort_ns, connections, accepted);
    else if (!strcmp(c->path, "/_finish")) {
        finished_below = serials;
        snprintf(json, sizeof json, "{\"live\":%" PRIu64 "}", live);
    } else if (!strcmp(c->path, "/_set")) {
        default_predict = number_in(body, "\"num_predict\"", default_predict);
        default_rate = number_in(body, "\"rate\"", default_rate);
        default_silent_ms = number_in(body, "\"silent_ms\"", default_silent_ms);
        snprintf(json, sizeof json, "{}");
    } else {
        status = "404 Not Found";
        snprintf(json, sizeof json, "404 page not found");
    }
    if (put_json(c, status, json)) answered(c);
}

/* ---- reading ---- */

static const char *header(const char *head, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, n) || line[2 + n] != ':') continue;
        line += 3 + n;
        while (*line == ' ') line++;
        return line;
    }
    return NULL;
}

static void keep_body(struct conn *c, const char *data, size_t len)
{
    if (!c->body) c->body = must(malloc(BODY_KEPT + 1));
    if (c->body_len + len > BODY_KEPT) len = BODY_KEPT - c->body_len;
    memcpy(c->body + c->body_len, data, len);
    c->body_len += len;
    c->body[c->body_len] = 0;
}

/* Takes body bytes; returns how many, or -1 for bad framing. Sets *done at the end of the body. */
static ssize_t take_body(struct conn *c, const char *data, size_t len, int *done)
{
    size_t i = 0;
    *done = 0;
    if (!c->chunked) {
        i = len < c->body_left ? len : (size_t)c->body_left;
        keep_body(c, data, i);
        c->body_left -= i;
        *done = c->body_left == 0;
        return (ssize_t)i;
    }
    while (i < len) {
        if (c->chunk_state == 1) {
            size_t n = len - i < c->body_left ? len - i : (size_t)c->body_left;
            keep_body(c, data + i, n);
            i += n;
            c->body_left -= n;
            if (!c->body_left) c->chunk_state = 2;
            continue;
        }
        char byte = data[i++];
        if (byte != '\n') {
            if (c->chunk_line_len + 1 >= sizeof c->chunk_line) return -1;
            c->chunk_line[c->chunk_line_len++] = byte;
            continue;
        }
        c->chunk_line[c->chunk_line_len] = 0;
        int empty = c->chunk_line_len == 0 || c->chunk_line[0] == '\r';
        c->chunk_line_len = 0;
        if (c->chunk_state == 0) {
            c->body_left = strtoull(c->chunk_line, NULL, 16);
            c->chunk_state = c->body_left ? 1 : 3;
        } else if (c->chunk_state == 2) {
            if (!empty) return -1;
            c->chunk_state = 0;
        } else if (empty) {
            *done = 1;
            return (ssize_t)i;
        }
    }
    return (ssize_t)i;
}

/* Works through what has been read; returns when more is needed, an answer is under way, or the connection is gone. */
static void read_on(struct conn *c)
{
    if (c->state == HEAD) {
        c->in[c->in_len] = 0;
        char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
        if (!end) {
            if (c->in_len >= HEAD_MAX) drop(c);
            return;
        }
        size_t head_len = (size_t)(end - c->in) + 4;
        end[2] = 0;
        c->path[0] = 0;
        if (sscanf(c->in, "%7s %63[^ ?]", c->method, c->path) != 2) {
            drop(c);
            return;
        }
        const char *length = header(c->in, "content-length"), *coding = header(c->in, "transfer-encoding");
        const char *connection = header(c->in, "connection"), *expect = header(c->in, "expect");
        c->close_after = connection && !strncasecmp(connection, "close", 5);
        c->chunked = coding && !strncasecmp(coding, "chunked", 7);
        c->body_left = length ? strtoull(length, NULL, 10) : 0;
        c->chunk_state = 0;
        c->chunk_line_len = 0;
        int has_body = c->chunked || c->body_left;
        memmove(c->in, c->in + head_len, c->in_len - head_len);
        c->in_len -= head_len;
        c->state = BODY;
        if (has_body && expect && !c->in_len && !put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25)) return;
        if (!has_body) {
            answer(c);
            return;
        }
    }
    if (c->state == BODY && c->in_len) {
        int done;
        ssize_t taken = take_body(c, c->in, c->in_len, &done);
        if (taken < 0) {
            drop(c);
            return;
        }
        memmove(c->in, c->in + taken, c->in_len - (size_t)taken);
        c->in_len -= (size_t)taken;
        if (done) answer(c);
    }
}

static void readable(struct conn *c)
{
    int fd = c->fd;
    for (int reads = 0; reads < 64; reads++) {
        size_t room = HEAD_MAX - c->in_len;
        if (!room) {
            drop(c);
            return;
        }
        ssize_t n = recv(fd, c->in + c->in_len, room, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            drop(c);
            return;
        }
        c->in_len += (size_t)n;
        read_on(c);
        if (conns[fd] != c || (size_t)n < room) return;
    }
}

static void writable(struct conn *c)
{
    if (c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            drop(c);
            return;
        }
        if (n > 0) c->out_off += (size_t)n;
        if (c->out_off < c->out_len) return;
        c->out_len = c->out_off = 0;
        if (c->state == HEAD && c->close_after) {
            drop(c);
            return;
        }
    }
    if (c->state == BLAST) {
        blast(c);
        return;
    }
    watch(c, 0);
    if (c->state == PACED && c->sent) { /* it had been held up: the pace starts anew */
        c->due = now_ns() + c->period_ns;
        c->generation++;
        timer_add(c->due, c);
    }
}

static void accept_all(void)
{
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        if (fd >= conns_cap) {
            int cap = fd * 2 + 64;
            conns = must(realloc(conns, (size_t)cap * sizeof *conns));
            memset(conns + conns_cap, 0, (size_t)(cap - conns_cap) * sizeof *conns);
            conns_cap = cap;
        }
        set_nodelay(fd);
        static uint32_t generations;
        struct conn *c = must(calloc(1, sizeof *c));
        c->fd = fd;
        c->generation = generations += 1000000;
        conns[fd] = c;
        connections++;
        accepted++;
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2 || atoi(argv[1]) <= 0) die("usage: sim PORT");
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct sockaddr_in address = loopback(atoi(argv[1]));
    int on = 1;
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listen_fd, (struct sockaddr *)&address, sizeof address) || listen(listen_fd, 4096)) die("sim: %s", strerror(errno));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listen_fd}, events[512];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event);
    for (;;) {
        uint64_t now = now_ns(), wait = UINT64_MAX;
        if (heap_len) wait = heap[0].due > now ? heap[0].due - now : 0;
        int n = wait_events(epoll_fd, events, 512, wait);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listen_fd) {
                accept_all();
                continue;
            }
            struct conn *c = conns[fd];
            if (c && events[i].events & (EPOLLERR | EPOLLHUP)) drop(c);
            else if (c && events[i].events & EPOLLOUT) writable(c);
            c = conns[fd];
            if (c && events[i].events & (EPOLLIN | EPOLLRDHUP)) readable(c);
        }
        now = now_ns();
        while (heap_len && heap[0].due <= now) {
            struct timer t = timer_pop();
            struct conn *c = t.fd < conns_cap ? conns[t.fd] : NULL;
            if (!c || c->generation != t.generation) continue;
            if (c->state == SILENT) start_answer(c);
            else if (c->state == PACED && !c->out_len) send_chunk(c, now_ns());
        }
    }
}
