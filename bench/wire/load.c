/*
 * Many clients that check every byte: an epoll HTTP/1.1 load generator for benchmarks. Prints one JSON object.
 *
 *   load MODE --port P [--path /api/generate] [--body JSON] [--header 'Name: value'] [--connections N] [--total N] [--seconds S]
 *             [--ramp MS] [--expect CHUNKS] [--sse] [--patience S]
 *
 *   unary    N connections, closed loop, kept alive, for S seconds; each answer must be one JSON object with "done":true
 *   stream   N streams at a time, --total in all; each must be framed strictly, have CHUNKS + 1 lines in order, the last one done
 *   hold     as stream, --total = N, but no CHUNKS: prints "held" once every stream has begun, and goes on until all have ended
 *   stall    as stream, one stream: stops reading after its first bytes for S seconds (prints "stalled", "reading"), then reads all
 *
 * Connections are opened over --ramp milliseconds. A connection silent for --patience seconds is an error (a stalled one is ours).
 * With --sse the answer is text/event-stream and ends with "data: [DONE]"; the lines' own shape is then not checked.
 *
 * A connection is always in one of these states:
 *   CLOSED → CONNECTING → SENDING → READ_HEAD → READ_BODY (fixed length) or READ_CHUNKS → IDLE → SENDING …
 */
#include "wire.h"
#include <strings.h>
#include <sys/resource.h>

#define HEAD_MAX 8192
#define LINE_MAX_KEPT 2048

enum mode { UNARY, STREAM, HOLD, STALL };
enum state { CLOSED, CONNECTING, SENDING, READ_HEAD, READ_BODY, READ_CHUNKS, IDLE };
enum chunk_part { SIZE, DATA, DATA_END, TRAILER };
enum error { E_CONNECT, E_STATUS, E_FRAMING, E_CONTENT, E_CLOSED, E_TIMEOUT, ERRORS };
static const char *const ERROR_NAMES[] = {"connect", "status", "framing", "content", "closed", "timeout"};

struct conn {
    int fd;
    enum state state;
    enum chunk_part part;
    size_t sent, head_len, line_len;
    uint64_t body_left, size_digits;
    uint64_t asked_at, last_at, last_stamp, lines, body_bytes;
    int began, done, close_after, size_cr, line_cut;
    char head[HEAD_MAX + 1];
    char line[LINE_MAX_KEPT + 1];
};

static enum mode mode;
static int port, sse, epoll_fd;
static const char *path = "/api/generate", *body = "{}", *extra_header;
static uint64_t connections = 1, total, expect, ramp_ns, seconds_ns = 3 * SECOND, patience_ns = 30 * SECOND;
static struct conn *conns;
static char *request;
static size_t request_len;
static struct ruler delays, first_bytes, latencies;
static uint64_t errors[ERRORS], answers, chunks, bytes, begun, started, finished, start_ns, last_ns, stop_ns, stalled_until;
static int stalled, held;
static char first_error[512];

static uint64_t open_conns;

static void fail(struct conn *c, enum error error, const char *detail, size_t len)
{
    if (!first_error[0]) {
        int n = snprintf(first_error, sizeof first_error, "%s: ", ERROR_NAMES[error]);
        for (size_t i = 0; i < len && i < 200; i++) {
            char byte = detail[i];
            first_error[n++] = byte < ' ' || byte == '"' || byte == '\\' || byte > '~' ? '.' : byte;
        }
        first_error[n] = 0;
    }
    errors[error]++;
    finished++;
    close(c->fd);
    c->state = CLOSED;
    open_conns--;
}

static void watch(const struct conn *c, uint32_t what)
{
    struct epoll_event event = {.events = what, .data.u64 = (uint64_t)(c - conns)};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void send_request(struct conn *c)
{
    if (c->state != SENDING) {
        c->state = SENDING;
        c->sent = c->head_len = c->line_len = 0;
        c->lines = c->last_stamp = c->body_bytes = 0;
        c->began = c->done = c->close_after = c->line_cut = 0;
        c->asked_at = c->last_at = now_ns();
    }
    while (c->sent < request_len) {
        ssize_t n = send(c->fd, request + c->sent, request_len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watch(c, EPOLLIN | EPOLLOUT);
            return;
        }
        if (n < 0) {
            fail(c, E_CLOSED, "while sending", 13);
            return;
        }
        c->sent += (size_t)n;
    }
    c->state = READ_HEAD;
}

static void open_conn(struct conn *c)
{
    struct sockaddr_in address = loopback(port);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("load: %s", strerror(errno));
    set_nodelay(c->fd);
    open_conns++;
    c->state = CONNECTING;
    c->last_at = now_ns();
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.u64 = (uint64_t)(c - conns)};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) fail(c, E_CONNECT, strerror(errno), strlen(strerror(errno)));
}

/* Whether this client should ask once more. */
static int more(uint64_t now)
{
    return mode == UNARY ? now < stop_ns : started < total;
}

/* ---- what an answer must look like ---- */

static uint64_t stamp_in(const char *line, size_t len)
{
    const char *at = memchr(line, '@', len);
    if (!at || (size_t)(line + len - at) <= STAMP_DIGITS) return 0;
    uint64_t ns = 0;
    for (int i = 1; i <= STAMP_DIGITS; i++) {
        if (at[i] < '0' || at[i] > '9') return 0;
        ns = ns * 10 + (uint64_t)(at[i] - '0');
    }
    return ns;
}

static int take_line(struct conn *c, const char *line, size_t len, uint64_t now)
{
    uint64_t stamp = stamp_in(line, len);
    if (stamp) {
        ruler_add(&delays, now > stamp ? now - stamp : 0);
        if (stamp < c->last_stamp) {
            fail(c, E_CONTENT, "out of order", 12);
            return 0;
        }
        c->last_stamp = stamp;
    }
    if (sse) {
        chunks += stamp != 0;
        c->lines += stamp != 0;
        if (len >= 12 && !memcmp(line, "data: [DONE]", 12)) c->done = 1;
        return 1;
    }
    chunks++;
    c->lines++;
    int last = len > 12 && memmem(line, len, "\"done\":true", 11) != NULL;
    if (c->done || !stamp || len < 30 || memcmp(line, "{\"model\":\"", 10) || line[len - 1] != '}') {
        fail(c, E_CONTENT, line, len);
        return 0;
    }
    if (last) {
        const char *count = memmem(line, len, "\"eval_count\":", 13); /* line is zero-terminated where strtoull may run on */
        uint64_t said = count ? strtoull(count + 13, NULL, 10) : UINT64_MAX;
        if (said != c->lines - 1 || (expect && said != expect)) {
            fail(c, E_CONTENT, line, len);
            return 0;
        }
        c->done = 1;
    }
    return 1;
}

/* Body bytes, unframed. Returns 0 when the connection was given up. */
static int take_data(struct conn *c, const char *data, size_t len, uint64_t now)
{
    c->body_bytes += len;
    bytes += len;
    if (!c->began) {
        c->began = 1;
        begun++;
        ruler_add(&first_bytes, now - c->asked_at);
    }
    while (len) {
        const char *end = mode == UNARY ? NULL : memchr(data, '\n', len);
        size_t n = end ? (size_t)(end - data) : len;
        if (end && !c->line_len) { /* a whole line in one piece: the usual case */
            if (!take_line(c, data, n, now)) return 0;
        } else {
            size_t room = LINE_MAX_KEPT - c->line_len, kept = n < room ? n : room;
            memcpy(c->line + c->line_len, data, kept);
            c->line_len += kept;
            c->line_cut |= kept < n;
            if (end) {
                c->line[c->line_len] = 0;
                size_t whole = c->line_len;
                c->line_len = 0;
                if (c->line_cut && !sse) {
                    fail(c, E_CONTENT, "overlong line", 13);
                    return 0;
                }
                c->line_cut = 0;
                if (!take_line(c, c->line, whole, now)) return 0;
            }
        }
        data += n + (end != NULL);
        len -= n + (end != NULL);
    }
    return 1;
}

static void completed(struct conn *c, uint64_t now)
{
    if (mode == UNARY) {
        c->line[c->line_len] = 0;
        int whole = c->line_len > 2 && c->line[0] == '{' && !c->line_cut && memchr(c->line + c->line_len - 2, '}', 2);
        if (!whole || (!sse && !strstr(c->line, "\"done\":true"))) {
            fail(c, E_CONTENT, c->line, c->line_len);
            return;
        }
    } else if (!c->done || c->line_len) {
        fail(c, E_CONTENT, "no last line", 12);
        return;
    }
    answers++;
    finished++;
    last_ns = now;
    ruler_add(&latencies, now - c->asked_at);
    c->state = IDLE;
    int again = more(now);
    if (c->close_after || !again) {
        close(c->fd);
        c->state = CLOSED;
        open_conns--;
        if (again) {
            started++;
            open_conn(c);
        }
        return;
    }
    started++;
    send_request(c);
}

/* ---- framing ---- */

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

/* Chunked coding without mercy: hex digits CR LF, data, CR LF; no extensions, no trailers. Returns bytes used, or -1 when given up. */
static ssize_t take_chunked(struct conn *c, const char *data, size_t len, uint64_t now, int *done)
{
    size_t i = 0;
    while (i < len) {
        if (c->part == DATA) {
            size_t n = len - i < c->body_left ? len - i : (size_t)c->body_left;
            if (!take_data(c, data + i, n, now)) return -1;
            i += n;
            c->body_left -= n;
            if (!c->body_left) c->part = DATA_END;
            continue;
        }
        char byte = data[i++];
        if (c->part == SIZE && !c->size_cr && byte != '\r') {
            int digit = byte >= '0' && byte <= '9' ? byte - '0' : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
            if (digit < 0 || ++c->size_digits > 15) {
                fail(c, E_FRAMING, data + i - 1, len - i + 1);
                return -1;
            }
            c->body_left = c->body_left * 16 + (uint64_t)digit;
            continue;
        }
        if (byte != (c->size_cr ? '\n' : '\r') || (c->part == SIZE && !c->size_digits)) {
            fail(c, E_FRAMING, data + i - 1, len - i + 1);
            return -1;
        }
        c->size_cr = !c->size_cr;
        if (c->size_cr) continue;
        if (c->part == TRAILER) {
            *done = 1;
            return (ssize_t)i;
        }
        if (c->part == SIZE) c->part = c->body_left ? DATA : TRAILER;
        else {
            c->part = SIZE;
            c->body_left = c->size_digits = 0;
        }
    }
    return (ssize_t)i;
}

/* Returns 0 when the connection was given up. */
static int take(struct conn *c, const char *data, size_t len, uint64_t now)
{
    while (len) {
        if (c->state == READ_HEAD) {
            size_t room = HEAD_MAX - c->head_len, n = len < room ? len : room, before = c->head_len;
            memcpy(c->head + before, data, n);
            c->head_len += n;
            c->head[c->head_len] = 0;
            char *end = strstr(c->head, "\r\n\r\n");
            if (!end) {
                if (n == room) {
                    fail(c, E_FRAMING, "endless head", 12);
                    return 0;
                }
                return 1;
            }
            size_t head_len = (size_t)(end - c->head) + 4;
            data += head_len - before;
            len -= head_len - before;
            end[2] = 0;
            if (strncmp(c->head, "HTTP/1.1 200", 12)) {
                fail(c, E_STATUS, c->head, strlen(c->head));
                return 0;
            }
            const char *length = header(c->head, "content-length"), *coding = header(c->head, "transfer-encoding");
            const char *connection = header(c->head, "connection");
            c->close_after = connection && !strncasecmp(connection, "close", 5);
            if (!length == !coding || (coding && strncasecmp(coding, "chunked\r", 8))) {
                fail(c, E_FRAMING, c->head, strlen(c->head));
                return 0;
            }
            c->state = length ? READ_BODY : READ_CHUNKS;
            c->body_left = length ? strtoull(length, NULL, 10) : 0;
            c->size_digits = 0;
            c->size_cr = 0;
            c->part = SIZE;
            continue;
        }
        int done = 0;
        if (c->state == READ_BODY) {
            size_t n = len < c->body_left ? len : (size_t)c->body_left;
            if (!take_data(c, data, n, now)) return 0;
            data += n;
            len -= n;
            c->body_left -= n;
            done = c->body_left == 0;
        } else if (c->state == READ_CHUNKS) {
            ssize_t n = take_chunked(c, data, len, now, &done);
            if (n < 0) return 0;
            data += n;
            len -= (size_t)n;
        } else {
            fail(c, E_FRAMING, "bytes after the end", 19);
            return 0;
        }
        if (!done) continue;
        if (len) {
            fail(c, E_FRAMING, "bytes after the end", 19);
            return 0;
        }
        completed(c, now);
        return c->state != CLOSED;
    }
    return 1;
}

static void readable(struct conn *c)
{
    static char buffer[65536 + 1];
    for (int reads = 0; reads < 4; reads++) {
        ssize_t n = recv(c->fd, buffer, sizeof buffer - 1, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            if (c->state == IDLE) {
                close(c->fd);
                c->state = CLOSED;
                open_conns--;
            } else fail(c, E_CLOSED, n ? strerror(errno) : "early end", n ? strlen(strerror(errno)) : 9);
            return;
        }
        buffer[n] = 0;
        uint64_t now = now_ns();
        c->last_at = now;
        if (!take(c, buffer, (size_t)n, now) || c->state == CONNECTING) return;
        if (mode == STALL && !stalled && c->began) {
            stalled = 1;
            stalled_until = now + seconds_ns;
            watch(c, 0);
            puts("stalled");
            return;
        }
        if ((size_t)n < sizeof buffer - 1) return;
    }
}

/* ---- the run ---- */

static void tick(uint64_t now)
{
    uint64_t due = ramp_ns ? (now - start_ns) * connections / ramp_ns + 1 : connections;
    static uint64_t opened;
    while (opened < connections && opened < due) {
        started++;
        open_conn(&conns[opened++]);
    }
    if (stalled_until && now >= stalled_until) {
        stalled_until = 0;
        puts("reading");
        conns[0].last_at = now;
        watch(&conns[0], EPOLLIN);
    }
    if (mode == HOLD && !held && begun + errors[E_CONNECT] + errors[E_STATUS] + errors[E_CLOSED] + errors[E_TIMEOUT] + errors[E_FRAMING] >= connections) {
        held = 1;
        puts("held");
    }
    static uint64_t checked_at;
    if (now - checked_at < 200 * MILLISECOND || stalled_until) return;
    checked_at = now;
    for (uint64_t i = 0; i < opened; i++) {
        struct conn *c = &conns[i];
        if (c->state != CLOSED && c->state != IDLE && now > c->last_at + patience_ns) fail(c, E_TIMEOUT, c->head, c->state >= READ_BODY ? 12 : 0);
    }
}

static void print_ruler(const char *name, const struct ruler *r)
{
    printf(",\"%s\":{\"count\":%" PRIu64 ",\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}", name, r->count, ruler_us(r, 0.5), ruler_us(r, 0.99),
           ruler_us(r, 0.999), (double)r->max / 1000.0);
}

static void print_result(void)
{
    uint64_t failed = 0;
    for (int i = 0; i < ERRORS; i++) failed += errors[i];
    printf("{\"seconds\":%.6f,\"answers\":%" PRIu64 ",\"chunks\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"errors\":{",
           last_ns > start_ns ? (double)(last_ns - start_ns) / 1e9 : 0.0, answers, chunks, bytes, failed);
    for (int i = 0; i < ERRORS; i++) printf("%s\"%s\":%" PRIu64, i ? "," : "", ERROR_NAMES[i], errors[i]);
    printf("},\"first_error\":\"%s\"", first_error);
    print_ruler("latency_us", &latencies);
    print_ruler("first_byte_us", &first_bytes);
    print_ruler("delay_us", &delays);
    puts("}");
}

static uint64_t number(const char *text, double unit)
{
    return (uint64_t)(strtod(text, NULL) * unit);
}

static void read_arguments(int argc, char **argv)
{
    static const char *const MODES[] = {"unary", "stream", "hold", "stall"};
    int known = -1;
    for (int i = 0; argc > 1 && i < 4; i++)
        if (!strcmp(argv[1], MODES[i])) known = i;
    if (known < 0) die("usage: load unary|stream|hold|stall --port P …  (load.c explains)");
    mode = (enum mode)known;
    for (int i = 2; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--sse")) {
            sse = 1;
            continue;
        }
        if (++i == argc) die("load: %s wants a value", name);
        const char *value = argv[i];
        if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--path")) path = value;
        else if (!strcmp(name, "--body")) body = value;
        else if (!strcmp(name, "--header")) extra_header = value;
        else if (!strcmp(name, "--connections")) connections = number(value, 1);
        else if (!strcmp(name, "--total")) total = number(value, 1);
        else if (!strcmp(name, "--seconds")) seconds_ns = number(value, 1e9);
        else if (!strcmp(name, "--ramp")) ramp_ns = number(value, 1e6);
        else if (!strcmp(name, "--expect")) expect = number(value, 1);
        else if (!strcmp(name, "--patience")) patience_ns = number(value, 1e9);
        else die("load: unknown option %s", name);
    }
    if (!port || !connections) die("load: --port and --connections must be positive");
    if (total < connections) total = connections;
    request = must(malloc(strlen(body) + 1024 + strlen(path) + (extra_header ? strlen(extra_header) : 0)));
    request_len = (size_t)sprintf(request,
                                  "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: corral-bench\r\nAccept: */*\r\n"
                                  "Content-Type: application/json\r\n%s%sContent-Length: %zu\r\n\r\n%s",
                                  path, port, extra_header ? extra_header : "", extra_header ? "\r\n" : "", strlen(body), body);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_arguments(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    conns = must(calloc(connections, sizeof *conns));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    start_ns = last_ns = now_ns();
    stop_ns = start_ns + seconds_ns;
    tick(start_ns);
    while (mode == UNARY ? now_ns() < stop_ns || open_conns : finished < total) {
        if (!open_conns && started >= connections) break; /* everyone failed or is done */
        struct epoll_event events[512];
        int n = wait_events(epoll_fd, events, 512, started < connections ? MILLISECOND : 20 * MILLISECOND);
        for (int i = 0; i < n; i++) {
            struct conn *c = &conns[events[i].data.u64];
            if (c->state == CLOSED) continue;
            if (c->state == CONNECTING) {
                int error = 0;
                socklen_t len = sizeof error;
                getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
                if (error) {
                    fail(c, E_CONNECT, strerror(error), strlen(strerror(error)));
                    continue;
                }
                if (!(events[i].events & EPOLLOUT)) continue;
                watch(c, EPOLLIN);
                send_request(c);
                continue;
            }
            if (events[i].events & EPOLLOUT && c->state == SENDING) {
                send_request(c);
                if (c->state == READ_HEAD) watch(c, EPOLLIN);
            }
            if (c->state != CLOSED && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
                if (c->state == SENDING) fail(c, E_CLOSED, "answered while sending", 22);
                else readable(c);
            }
        }
        tick(now_ns());
    }
    print_result();
    return 0;
}
