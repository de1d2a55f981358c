/* A plugin of QEMU: counts the instructions that the emulated program executes.
 *
 * Each time the program calls getpgid, the count so far is a line of QEMU's log (-d plugin -D FILE): a program marks
 * its own places by a call that does nothing else.
 */
#include <inttypes.h>
#include <stdio.h>

#include <qemu-plugin.h>

enum { GETPGID = 155 }; /* its number on 64-bit ARM: include/uapi/asm-generic/unistd.h of Linux */

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static qemu_plugin_u64 executed; /* one counter a thread */

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, QEMU_PLUGIN_INLINE_ADD_U64, executed,
                                                      qemu_plugin_tb_n_insns(block));
}

static void on_call(qemu_plugin_id_t id, unsigned int thread, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                    uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    char line[32];

    if (number == GETPGID) {
        snprintf(line, sizeof line, "%" PRIu64 "\n", qemu_plugin_u64_sum(executed));
        qemu_plugin_outs(line);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    executed = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_call);
    return 0;
}
